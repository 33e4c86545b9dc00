"""Turns an uploaded archive into one canonical dataset, in a child process with limits.

It knows archives, image headers, label grammars and folders. It knows nothing of queues, databases or torch:
the parent hands it a folder and publishes what it left there.
"""
