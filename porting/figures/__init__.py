"""Data -> Plotly figures. Nothing here knows a web page."""
