# SPDX-License-Identifier: Apache-2.0
"""A run's files as one HTML page: folder.py reads them, sections.py says what they show, svg.py draws, page.py puts the
page together from page.html, page.css and page.js. The page loads nothing."""
