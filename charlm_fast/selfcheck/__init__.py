"""Every kernel family tried on this machine, in processes of their own: right, and fast enough?"""
