"""Importing this makes deploy/lab importable: the namespaces, the guest's counter and the prober are the lab's."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "deploy"))
