"""A recipe in; memory, speed, time, money and disk out, before it runs and without torch."""
