# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Proofs: is this the paper's network, and how fast is it here?"""
