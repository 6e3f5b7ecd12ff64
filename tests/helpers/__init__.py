"""What tests share: small models, data and servers; programs that tests run in processes of their own."""
