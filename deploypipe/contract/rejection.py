"""The answer to a request that cannot be served: a 4xx for that request alone. This module travels
inside archives."""

BAD_REQUEST, UNSUPPORTED_MEDIA_TYPE, UNPROCESSABLE = 400, 415, 422

PHRASES = {400: "Bad Request", 415: "Unsupported Media Type", 422: "Unprocessable Entity", 500: "Internal Server Error"}


class Rejection(Exception):
    """`status` and what is wrong. 400: the body cannot be parsed; 415: it is of a kind that is not taken; 422: it is
    well formed, and its shape, type or values do not fit the model."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
