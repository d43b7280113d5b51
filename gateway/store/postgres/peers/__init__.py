"""How gateways of one database push events to each other; without it all goes by bells and the table."""
