"""lab/agents"""
