"""What is installed here: a report to paste into a question, and the completion of shells."""
