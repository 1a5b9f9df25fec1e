"""Generated pictures: dead leaves, fabrics, specimens."""
