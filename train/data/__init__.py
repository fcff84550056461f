"""Images: reading, streaming, augmentation."""
