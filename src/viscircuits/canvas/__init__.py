"""What pictures and pages are made of: marks with roles for colours, markup that is a type, SVG and HTML. Data only."""
