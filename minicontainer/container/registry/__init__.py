"""The containers of the state directory: their names, ids and ownership locks."""
