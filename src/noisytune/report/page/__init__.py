"""What people read: sentences, tables, figures, and the two files that hold them."""
