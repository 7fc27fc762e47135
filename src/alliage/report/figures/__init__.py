"""The report's pictures: SVG written from plain numbers, coloured by the page's style sheet."""
