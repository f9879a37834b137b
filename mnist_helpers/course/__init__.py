"""What keeps the course: its catalogue, records, tables, notebooks as files, studies and pages."""
