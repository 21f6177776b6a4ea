"""The parts of the report, each a function from study and page to a section."""
