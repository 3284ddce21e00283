"""Who may do what, and who did: tokens, roles, users of the unix socket, certificates, the audit log."""
