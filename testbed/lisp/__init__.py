"""lisp"""
