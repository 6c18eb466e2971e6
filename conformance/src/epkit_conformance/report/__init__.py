"""The forms of a report: a page for people, JUnit XML and JSON for programs, a badge, a comparison."""
