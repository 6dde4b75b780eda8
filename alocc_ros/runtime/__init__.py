# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How a network is run: made ready for inference, on a device, with buffers of its own."""
