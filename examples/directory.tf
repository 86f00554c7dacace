# Who works here.

resource "justiam_user" "dana" {
  email = "dana@example.com"
  name  = "Dana Fischer"
}

resource "justiam_user" "deploy_bot" {
  email    = "deploy-bot@example.com"
  name     = "Deploy Bot"
  owner_id = justiam_user.dana.id
}

resource "justiam_group" "database_owners" {
  name        = "database_owners"
  description = "Decide who may read production data."
}

resource "justiam_group" "platform_managers" {
  name        = "platform_managers"
  description = "Decide what waits for too long."
}

resource "justiam_group_membership" "dana_owns_databases" {
  group_id = justiam_group.database_owners.id
  user_id  = justiam_user.dana.id
}

# What they get access to.

resource "justiam_application" "warehouse" {
  name        = "Data warehouse"
  description = "Everything that was ever sold."
}

resource "justiam_app_mapping" "warehouse_reader" {
  app_id = justiam_application.warehouse.id
  name   = "Reader"
  claim  = "roles"
  value  = "warehouse_reader"
}

resource "justiam_app_mapping" "warehouse_owner" {
  app_id    = justiam_application.warehouse.id
  name      = "Owner"
  claim     = "roles"
  value     = "warehouse_owner"
  group_ids = [justiam_group.database_owners.id]
}
