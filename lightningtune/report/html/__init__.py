"""The report of a study as one page, and its figures one by one."""
