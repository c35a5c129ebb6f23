"""Files → documents, one module a format; `formats.READERS` names them all."""
