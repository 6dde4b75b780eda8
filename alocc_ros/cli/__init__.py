# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The `alocc` command, one thin file a subcommand."""
