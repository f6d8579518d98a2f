"""lisp/wire"""
