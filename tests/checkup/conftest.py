"""Settings of the property tests in here."""

from tests import property_settings

property_settings.load()
