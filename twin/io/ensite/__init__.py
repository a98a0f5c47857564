"""EnSite Precision and EnSite X exports: DIF XML, contact-mapping CSV, wave files; written as phantoms (not verified on the hardware).

What the files hold is known from OpenEP (Apache-2.0) and the shared description in `data/ensite/SOURCE.md`, read for facts.
"""

from twin.io.ensite.dif import parse_dif, read_dif, write_dif
from twin.io.ensite.study import is_ensite, read_ensite
from twin.io.ensite.waves import parse_waves
from twin.io.ensite.write import write_ensite

__all__ = ["is_ensite", "parse_dif", "parse_waves", "read_dif", "read_ensite", "write_dif", "write_ensite"]
