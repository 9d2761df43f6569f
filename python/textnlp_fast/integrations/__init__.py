"""Other projects' engines. Each module needs its own project and is imported by nobody here."""
