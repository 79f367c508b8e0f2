"""From a face and speech to a talking video: what each system's checkpoint does, frame by frame."""
