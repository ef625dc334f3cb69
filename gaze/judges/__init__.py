"""Which region does a text describe?"""
