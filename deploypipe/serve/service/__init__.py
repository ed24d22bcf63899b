"""What answers a request, the same on every engine: read, run, render. These modules travel inside archives.

served_model.py  a packed model, proven, that answers batches of requests
requests.py      one HTTP body becomes one request for the model
images.py        image files and pixel lists become pixels in the model's shape
answers.py       what the model gave for a request, and how that is written as JSON
limits.py        how large requests and answers may be
"""
