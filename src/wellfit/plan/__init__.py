"""A recipe in; its memory, speed, time, money and disk out, before anything runs and without torch."""
