"""lab/hypervisor"""
