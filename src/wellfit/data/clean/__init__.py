"""Text as read → text as trained on. A cleaner is a function from text to text."""
