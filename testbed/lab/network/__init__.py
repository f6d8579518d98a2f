"""lab/network"""
