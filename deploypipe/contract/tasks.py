"""What a server makes of a model: classes from pixels, or tensors as the signature says."""

IMAGE_CLASSIFICATION, TENSORS = "image-classification", "tensors"
