"""What must not leave the house unseen: personal data and signs of privilege, found in a document's text."""
