# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the node costs besides the network: messages in and out, measured between processes."""
