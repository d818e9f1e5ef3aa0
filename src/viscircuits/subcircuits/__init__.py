"""Taking features apart: by the images that excite them, and by what their circuits share."""
