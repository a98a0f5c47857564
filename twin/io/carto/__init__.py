"""CARTO 3 study exports: read from zip, 7-Zip or folder; written as phantoms (not verified on the vendor's hardware).

What the files hold is known from openly licensed readers and their notes (OpenEP, Apache-2.0; pulse-ep; med2glb), read for facts.
"""

from twin.io.carto.study import is_carto, list_maps, read_carto
from twin.io.carto.write import write_carto

__all__ = ["is_carto", "list_maps", "read_carto", "write_carto"]
