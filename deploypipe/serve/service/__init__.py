"""What answers a request, the same on every engine: read, run, render. These modules travel inside archives.

requests.py  one HTTP body becomes one request for the model
images.py    image files and pixel lists become pixels in the model's shape
"""
