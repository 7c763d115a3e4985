"""HTML reports: tables, plots and pages made from rows of the store."""
