"""What a network looks at: sets of images, and a generator of labelled shapes."""
