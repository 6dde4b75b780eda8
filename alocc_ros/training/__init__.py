# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Training: losses, targets, augmentation, streams of sequences, and the loop around them."""
