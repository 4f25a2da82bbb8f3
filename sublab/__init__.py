"""The ground floor, which knows no experiment."""
