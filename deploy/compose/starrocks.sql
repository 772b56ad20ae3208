-- The target of compose/orders.json. For StarRocks and the stand-in.
CREATE DATABASE IF NOT EXISTS dw;

CREATE TABLE IF NOT EXISTS dw.orders (
    id BIGINT NOT NULL,
    shop_id INT NOT NULL,
    amount DECIMAL(18, 4) NOT NULL,
    remark VARCHAR(800) NULL,
    created_at DATETIME NOT NULL
)
DUPLICATE KEY (id)
DISTRIBUTED BY HASH (id) BUCKETS 8
PROPERTIES ("replication_num" = "1");
