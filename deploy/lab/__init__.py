"""A Drover cluster in network namespaces of one machine: see README.md, and lab.py for the entry point."""
