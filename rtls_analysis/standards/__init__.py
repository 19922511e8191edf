"""One pure module per standard: text or bytes in, a frozen record or a verdict out, no input or output of its own."""
