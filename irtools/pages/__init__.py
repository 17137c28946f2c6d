"""Web pages: templates, one style, charts as SVG, and a content policy without exceptions.

No face: `blocks` has what a section is made of, `charts` what is drawn, `engine` makes pages of it.
"""
