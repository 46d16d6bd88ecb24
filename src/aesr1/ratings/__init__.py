"""Human ratings from any source, in one form."""
